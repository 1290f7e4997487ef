-- The statements that give such tables what the live ones have: keys, indexes, checks, foreign keys, in this order.
-- Run with an empty search_path, under which the definitions name every schema.
SELECT statement
FROM (
    SELECT CASE k.contype WHEN 'p' THEN 1 WHEN 'u' THEN 2 WHEN 'c' THEN 4 ELSE 5 END AS step, k.conname AS name, format(
        'ALTER TABLE %%I.%%I ADD CONSTRAINT %%I %%s', %(schema)s::text, c.relname, k.conname,
        replace(pg_get_constraintdef(k.oid), 'REFERENCES evosense.', format('REFERENCES %%I.', %(schema)s::text))
    ) AS statement
    FROM pg_constraint AS k
    JOIN pg_class AS c ON c.oid = k.conrelid
    WHERE c.relnamespace = 'evosense'::regnamespace AND NOT c.relispartition AND k.contype IN ('p', 'u', 'c', 'f')
    UNION ALL
    SELECT 3, c.relname, regexp_replace(
        pg_get_indexdef(i.indexrelid), ' ON (ONLY )?evosense\.', format(' ON %%I.', %(schema)s::text)
    )
    FROM pg_index AS i
    JOIN pg_class AS t ON t.oid = i.indrelid
    JOIN pg_class AS c ON c.oid = i.indexrelid
    WHERE t.relnamespace = 'evosense'::regnamespace AND NOT t.relispartition
        AND NOT EXISTS (SELECT FROM pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u'))
) AS statements
ORDER BY step, name;

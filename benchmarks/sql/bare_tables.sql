-- The statements that make tables like the live ones in another schema, bare: columns, NOT NULL and partitions.
SELECT statement
FROM (
    SELECT 1 AS step, c.relname, format(
        'CREATE TABLE %%I.%%I (LIKE evosense.%%I INCLUDING STORAGE) %%s', %(schema)s::text, c.relname, c.relname,
        'PARTITION BY ' || pg_get_partkeydef(c.oid)
    ) AS statement
    FROM pg_class AS c
    WHERE c.relnamespace = 'evosense'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    UNION ALL
    SELECT 2, c.relname, format(
        'CREATE TABLE %%I.%%I PARTITION OF %%I.%%I %%s', %(schema)s::text, c.relname, %(schema)s::text, p.relname,
        pg_get_expr(c.relpartbound, c.oid)
    )
    FROM pg_class AS c
    JOIN pg_inherits AS i ON i.inhrelid = c.oid
    JOIN pg_class AS p ON p.oid = i.inhparent
    WHERE c.relnamespace = 'evosense'::regnamespace AND c.relispartition AND c.relkind = 'r'
) AS statements
ORDER BY step, relname;

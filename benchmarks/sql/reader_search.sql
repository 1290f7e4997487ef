SELECT * FROM evosense.semantic_search(%(tenant_id)s, %(vector)s::vector(768), 20, 0.1)

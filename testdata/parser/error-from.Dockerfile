FROM
FROM a b
FROM a b c
FROM a as b c

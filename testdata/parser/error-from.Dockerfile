FROM
FROM a b
FROM a b c
FROM a as b c
FROM a as
FROM a AS b AS c
FROM --platform=x

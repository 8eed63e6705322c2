FROM a AS 1x
FROM a AS "b"
FROM a AS É
FROM a as -

FROM a
LABEL "com.x y"="v" z='w'

FROM a
RUNN true
rum x
Foo bar
USER u

FROM a
COPPY a b
EXPSE 80
HEALTCHECK NONE
entripoint x
WorkDirr /x
LABLE a=b
VOLUMES /a
MAINTAIN x
EN a=b
ADDD a b
#RUN x
INCLUDE x
Foo bar
rum x

FROM busybox
RUN <<a.b-c_d/e
1
a.b-c_d/e
RUN <<"x y" cat
2
x y
RUN <<'"'
3
"
RUN <<é
4
é
RUN <<#
5
#

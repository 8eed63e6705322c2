FROM a
ENV
ENV a
ENV a=b c d=e f
ENV =a
LABEL
LABEL a
LABEL a=b =c
ENV \
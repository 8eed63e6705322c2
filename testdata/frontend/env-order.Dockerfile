FROM kit
ENV B=1 A=2
ENV PATH=/x:$PATH C=3
ENV A=4 a=5
LABEL l=1 m=2
LABEL m=3 k=4 l=""
RUN true

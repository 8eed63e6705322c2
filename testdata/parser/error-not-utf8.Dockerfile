FROM a
RUN ÿ þ
COPY <<E /x
# ÿ
E

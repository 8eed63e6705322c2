FROM busybox
RUN echo "héllo wörld" → 日本
ENV ключ=значение
LABEL  x=y
COPY <<ё /x
тело
ё

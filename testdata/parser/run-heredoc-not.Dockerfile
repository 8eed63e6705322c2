FROM busybox
RUN cat<<EOF
RUN x <<<EOF
RUN it's <<EOF
RUN echo "<<EOF"
CMD <<EOF
RUN ["<<EOF"]
RUN a;<<EOF

FROM busybox
RUN
RUN ["a", "b c", "\u00e9\\"]
RUN [a]
RUN  x   y
RUN ""

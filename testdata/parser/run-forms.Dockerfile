FROM a
RUN
RUN ["a", "b c", "\u00e9\\"]
RUN [a]
RUN []
RUN  x   y
RUN ""

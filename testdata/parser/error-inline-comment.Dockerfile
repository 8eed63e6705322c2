FROM a # not a comment
RUN x # but here it is for the shell

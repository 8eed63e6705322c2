FROM a
# check=skip=all
# doc for run
RUN x

FROM a
ENV c=d \


USER u

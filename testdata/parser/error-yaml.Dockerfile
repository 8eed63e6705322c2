services:
  web:
    image: a

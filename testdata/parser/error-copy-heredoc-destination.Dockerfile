FROM a
COPY a <<EOF
x
EOF
ADD a <<B
B

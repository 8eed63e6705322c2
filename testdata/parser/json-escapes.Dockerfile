FROM busybox
CMD ["\u0041\n\t\"\\\/", "\ud83d\ude00", "\ud83d", "é", ""]

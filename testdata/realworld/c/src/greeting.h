/* Text of a greeting. */
const char *greeting(void);

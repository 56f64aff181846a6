package patch

// endsFlow reports whether the code of a function ends in an instruction that
// does not go on to the next one. Hand-written code may fall through the
// padding into the function behind it, as glibc's __memmove_chk does.
func endsFlow(code []byte) bool {
	n := len(code)
	switch {
	case n >= 1 && (code[n-1] == 0xc3 || code[n-1] == 0xf4 || code[n-1] == 0xcc):
		return true
	case n >= 2 && (code[n-2] == 0xeb || code[n-2] == 0x0f && code[n-1] == 0x0b || code[n-2] == 0xff && code[n-1]&0xf8 == 0xe0):
		return true
	case n >= 5 && (code[n-5] == 0xe9 || code[n-5] == 0xe8):
		return true
	}
	return false
}

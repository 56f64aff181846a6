// Empty: it lets receive.go declare functions that the runtime defines.

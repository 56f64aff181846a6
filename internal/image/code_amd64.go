package image

func stubAddress() uintptr
func landingAddress() uintptr

//go:build linux && (amd64 || arm64)

package fd

// largeFile is what 64-bit kernels add by themselves.
const largeFile = 0

package image

// CgroupName is for tests that look for what a builder left.
func CgroupName(dir string) string { return cgroupName(dir) }

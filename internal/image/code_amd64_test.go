package image

import "testing"

func TestCodeFits(t *testing.T) {
	stub, err := text(stubAddress())
	if err != nil {
		t.Fatal(err)
	}
	landing, err := Landing()
	if err != nil {
		t.Fatal(err)
	}
	single, err := Single()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("stub %d bytes, landing %d bytes, single call %d bytes", len(stub), len(landing), len(single))
	if _, err := Issued(); err != nil {
		t.Error(err)
	}
}

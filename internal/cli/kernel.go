package cli

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/seed-055cd0c8/indirect/fdcall"
	"github.com/seed-055cd0c8/indirect/internal/launch"
	"github.com/seed-055cd0c8/indirect/internal/oldkernel"
	"github.com/seed-055cd0c8/indirect/supervise"
)

// kernelFlags are the flags of "indirect run" about older kernels.
type kernelFlags struct {
	oldkernel.Options
	bisect bool
}

func (k *kernelFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&k.Kernel, "kernel", "", "run the command as on Linux `VERSION`, such as 3.10 or 2.6.26")
	flags.StringSliceVar(&k.Without, "without", nil, "take away the system calls, operations or flags `NAMES`, with commas between them")
	flags.StringVar(&k.Error, "without-error", "", "let what --without names fail with `ERROR`, such as EPERM, instead of what older kernels say")
	flags.BoolVar(&k.bisect, "bisect-kernel", false, "find the oldest kernel on which the command exits 0, by running it several times")
	completeLater(c, "without", oldkernel.Names)
	complete(c, "without-error", []string{"ENOSYS", "EPERM", "EACCES", "EINVAL"})
}

// completeLater is complete for values that take a while to list.
func completeLater(c *cobra.Command, flag string, values func() []string) {
	err := c.RegisterFlagCompletionFunc(flag, func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return values(), cobra.ShellCompDirectiveNoFileComp
	})
	if err != nil {
		panic(err) // there is no such flag: see complete
	}
}

// asked reports whether an older kernel is asked for.
func (k *kernelFlags) asked() bool { return k.Kernel != "" || len(k.Without) > 0 || k.Error != "" }

// apply makes the options of a run those of a run on the older kernel. The
// result installs what the kernel itself is to refuse.
func (k *kernelFlags) apply(o *supervise.Options) (func(*supervise.Supervision, *launch.Spec) error, error) {
	if !k.asked() {
		return func(*supervise.Supervision, *launch.Spec) error { return nil }, nil
	}
	k.Adds = slices.ContainsFunc(fdcall.Linux().All(), func(c fdcall.Call) bool { return o.Policy.Union(&c) != 0 })
	s, err := oldkernel.New(k.Options)
	if err != nil {
		return nil, err
	}
	x, needed, err := s.Extension()
	if err != nil {
		return nil, err
	}
	if needed {
		o.Extensions = append(o.Extensions, x)
	}
	// A patched call site serves calls of all numbers, and what it makes of
	// them passes the filter that refuses calls.
	o.NoPatch = true
	return func(run *supervise.Supervision, spec *launch.Spec) error {
		spec.Refusals, err = s.Filter(run.Issuer())
		return err
	}, nil
}

// checkBisect refuses other flags beside --bisect-kernel, which would do nothing.
func (k *kernelFlags) checkBisect(flags *pflag.FlagSet) (err error) {
	if !k.bisect {
		return nil
	}
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "bisect-kernel" && err == nil {
			err = fmt.Errorf("--bisect-kernel and --%s exclude each other", f.Name)
		}
	})
	return err
}

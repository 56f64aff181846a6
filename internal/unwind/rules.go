package unwind

import (
	"errors"
	"fmt"
)

var (
	// errNoRules says that nothing describes the frames of some code.
	errNoRules = errors.New("no call frame information")
	errCorrupt = errors.New("call frame information that makes no sense")
)

// Kinds of rules for what the caller's registers are (DWARF 5, 6.4.1).
const (
	sameValue  = iota
	undefined  // gone
	atOffset   // in memory at the CFA plus an offset
	isOffset   // the CFA plus an offset
	inRegister // in another register
	atAddress  // in memory at an expression's value
	isValue    // an expression's value
	plusOffset // of a CFA: a register plus an offset
)

// rule says what one register of the caller is.
type rule struct {
	kind   uint8
	reg    uint8
	offset int64
	code   []byte // an expression
}

// row are the rules for one instruction.
type row struct {
	cfa    rule // plusOffset or isValue
	regs   []registerRule
	ra     uint8 // the register that the return address is in
	signal bool  // the code is where signal handlers return to
}

type registerRule struct {
	register uint8
	rule
}

// apply changes the registers to those of the caller. It returns the address
// of the word that the new PC was found in.
func (w *row) apply(regs *Regs, memory *window, bias uint64) (at uint64, err error) {
	var cfa uint64
	if w.cfa.kind == isValue {
		cfa, err = evaluate(w.cfa.code, regs, memory, bias)
	} else {
		cfa, err = regs.get(uint64(w.cfa.reg))
		cfa += uint64(w.cfa.offset)
	}
	if err != nil {
		return 0, err
	}
	arch := regs.Arch
	if arch == I386 {
		cfa = uint64(uint32(cfa))
	}
	next := *regs
	next.set(arch.sp(), cfa)
	next.known &^= 1 << arch.pc()
	ra := rule{}
	for i := range w.regs {
		r := &w.regs[i]
		if r.register == w.ra {
			ra = r.rule
		}
		if int(r.register) >= registers || r.register == uint8(arch.pc()) {
			continue
		}
		v, _, err := r.value(regs, memory, bias, cfa)
		if err != nil {
			if int(r.register) != arch.sp() {
				next.known &^= 1 << r.register
				continue
			}
			return 0, err
		}
		next.set(int(r.register), v)
	}
	var pc uint64
	switch {
	case ra.kind == undefined:
		return 0, errOutermost
	case ra.kind == sameValue:
		// no function of these ABIs leaves its return address in a register
		if pc, err = regs.get(uint64(w.ra)); err != nil || int(w.ra) == arch.pc() {
			return 0, errOutermost
		}
	default:
		if pc, at, err = ra.value(regs, memory, bias, cfa); err != nil {
			return 0, err
		}
	}
	next.SetPC(pc)
	*regs = next
	return at, nil
}

// value computes a register of the caller, and where it was found in memory.
func (r *rule) value(regs *Regs, memory *window, bias, cfa uint64) (v, at uint64, err error) {
	switch r.kind {
	case atOffset:
		at = cfa + uint64(r.offset)
		v, err = memory.at(at)
	case isOffset:
		v = cfa + uint64(r.offset)
	case inRegister:
		v, err = regs.get(uint64(r.reg))
	case atAddress:
		if at, err = evaluate(r.code, regs, memory, bias, cfa); err == nil {
			v, err = memory.at(at)
		}
	case isValue:
		v, err = evaluate(r.code, regs, memory, bias, cfa)
	default:
		err = ErrRegisters
	}
	return v, at, err
}

// cie is what several functions have in common.
type cie struct {
	codeAlign uint64
	dataAlign int64
	ra        uint8
	encoding  byte // of the pointers in its FDEs
	augmented bool // FDEs have augmentation data
	signal    bool
	program   []byte
}

// parseCIE parses a common information entry, from its version on. In
// .debug_frame, eh is false.
func parseCIE(b []byte, word int, eh bool) (*cie, error) {
	d := decoder{b: b, word: word}
	c := &cie{}
	version := d.byte()
	if version != 1 && version != 3 && version != 4 {
		return nil, errCorrupt
	}
	var augmentation []byte
	for {
		letter := d.byte()
		if letter == 0 {
			break
		}
		augmentation = append(augmentation, letter)
	}
	if string(augmentation) == "eh" {
		d.take(word)
	}
	if version == 4 {
		if size := d.byte(); int(size) != word {
			return nil, errCorrupt
		}
		if segments := d.byte(); segments != 0 {
			return nil, errCorrupt
		}
	}
	c.codeAlign, c.dataAlign = d.uleb(), d.sleb()
	ra := uint64(0)
	if version == 1 {
		ra = uint64(d.byte())
	} else {
		ra = d.uleb()
	}
	if ra >= registers {
		return nil, errCorrupt
	}
	c.ra = uint8(ra)
	if len(augmentation) > 0 && augmentation[0] == 'z' {
		c.augmented = true
		length := d.uleb()
		if length > uint64(d.left()) {
			return nil, errCorrupt
		}
		end := d.at + int(length)
		for _, letter := range augmentation[1:] {
			switch letter {
			case 'R':
				c.encoding = d.byte()
			case 'L':
				d.byte()
			case 'P':
				const indirect = 0x80
				encoding := d.byte()
				d.pointer(encoding&^indirect, 0, 0)
			case 'S':
				c.signal = true
			}
		}
		if d.at > end {
			return nil, errCorrupt
		}
		d.at = end
	} else if len(augmentation) > 0 && eh && string(augmentation) != "eh" {
		return nil, errCorrupt
	}
	if d.failed {
		return nil, errCorrupt
	}
	c.program = b[d.at:]
	return c, nil
}

// fde is the frames of one function.
type fde struct {
	*cie
	start, end uint64
	program    []byte
}

// parseFDE parses a frame description entry, from the start of its range on,
// which lies at address.
func parseFDE(b []byte, address uint64, c *cie, word int) (*fde, error) {
	d := decoder{b: b, word: word}
	f := &fde{cie: c}
	f.start = d.pointer(c.encoding, address, 0)
	f.end = f.start + d.pointer(c.encoding&0x0f, 0, 0)
	if c.augmented {
		d.take(int(min(d.uleb(), uint64(len(b)+1))))
	}
	if d.failed || f.end < f.start {
		return nil, errCorrupt
	}
	f.program = b[d.at:]
	return f, nil
}

// Bounds of a function's program: real ones have hundreds of instructions.
const (
	maxInstructions = 1 << 16
	maxRemembered   = 64
)

// machine executes call frame instructions (DWARF 5, 6.4.2).
type machine struct {
	cfa         rule
	regs        [registers]rule
	initial     [registers]rule
	remembered  []remembered
	pc          uint64
	target      uint64
	instruction int
	word        int
}

type remembered struct {
	cfa  rule
	regs [registers]rule
}

// row computes the rules at target.
func (f *fde) row(target uint64, word int) (*row, error) {
	m := machine{target: target, pc: f.start, word: word}
	for i := range m.regs {
		m.regs[i].kind = sameValue
	}
	if err := m.run(f.cie.program, f.cie, true); err != nil {
		return nil, err
	}
	m.initial = m.regs
	if err := m.run(f.program, f.cie, false); err != nil {
		return nil, err
	}
	if m.cfa.kind != plusOffset && m.cfa.kind != isValue {
		return nil, fmt.Errorf("%w: no CFA", errCorrupt)
	}
	w := &row{cfa: m.cfa, ra: f.ra, signal: f.signal}
	w.cfa.code = append([]byte(nil), w.cfa.code...)
	for i, r := range m.regs {
		if r.kind != sameValue {
			r.code = append([]byte(nil), r.code...)
			w.regs = append(w.regs, registerRule{uint8(i), r})
		}
	}
	return w, nil
}

// run executes a program up to the target.
func (m *machine) run(program []byte, c *cie, isInitial bool) error {
	d := decoder{b: program, word: m.word}
	ignored := rule{} // of registers that nobody needs: SSE, segments
	reg := func(n uint64) *rule {
		if n < registers {
			return &m.regs[n]
		}
		return &ignored
	}
	block := func() []byte { return d.take(int(min(d.uleb(), uint64(len(program)+1)))) }
	restore := func(n uint64) error {
		if n < registers {
			m.regs[n] = m.initial[n]
		}
		return nil
	}
	// advance reports whether the target has been passed.
	advance := func(delta uint64) bool {
		m.pc += delta * c.codeAlign
		return m.pc > m.target && !isInitial
	}
	factored := func(v uint64) int64 { return int64(v) * c.dataAlign }
	cfaRegister := func(n uint64) (uint8, error) {
		if n >= registers {
			return 0, errCorrupt
		}
		return uint8(n), nil
	}
	for d.at < len(program) {
		if m.instruction++; m.instruction > maxInstructions {
			return fmt.Errorf("%w: a program that is too long", errCorrupt)
		}
		op := d.byte()
		low := uint64(op & 0x3f)
		var err error
		switch op >> 6 {
		case 1: // advance_loc
			if advance(low) {
				return nil
			}
			continue
		case 2: // offset
			*reg(low) = rule{kind: atOffset, offset: factored(d.uleb())}
		case 3: // restore
			err = restore(low)
		default:
			switch op {
			case 0x00: // nop
			case 0x01: // set_loc
				m.pc = d.pointer(c.encoding&0x0f, 0, 0)
				if c.encoding&0x70 != 0 {
					return fmt.Errorf("%w: set_loc", errCorrupt) // no compiler writes it
				}
				if m.pc > m.target && !isInitial {
					return nil
				}
			case 0x02, 0x03, 0x04: // advance_loc1, 2, 4
				if advance(d.unsigned(1 << (op - 2))) {
					return nil
				}
			case 0x05: // offset_extended
				n := d.uleb()
				*reg(n) = rule{kind: atOffset, offset: factored(d.uleb())}
			case 0x06: // restore_extended
				err = restore(d.uleb())
			case 0x07: // undefined
				*reg(d.uleb()) = rule{kind: undefined}
			case 0x08: // same_value
				*reg(d.uleb()) = rule{kind: sameValue}
			case 0x09: // register
				n, from := d.uleb(), d.uleb()
				*reg(n) = rule{kind: inRegister, reg: uint8(min(from, 255))}
			case 0x0a: // remember_state
				if len(m.remembered) >= maxRemembered {
					return errCorrupt
				}
				m.remembered = append(m.remembered, remembered{m.cfa, m.regs})
			case 0x0b: // restore_state
				if len(m.remembered) == 0 {
					return errCorrupt
				}
				last := m.remembered[len(m.remembered)-1]
				m.cfa, m.regs = last.cfa, last.regs
				m.remembered = m.remembered[:len(m.remembered)-1]
			case 0x0c, 0x12: // def_cfa, def_cfa_sf
				m.cfa = rule{kind: plusOffset}
				m.cfa.reg, err = cfaRegister(d.uleb())
				if op == 0x0c {
					m.cfa.offset = int64(d.uleb())
				} else {
					m.cfa.offset = d.sleb() * c.dataAlign
				}
			case 0x0d: // def_cfa_register
				m.cfa.kind, m.cfa.code = plusOffset, nil
				m.cfa.reg, err = cfaRegister(d.uleb())
			case 0x0e: // def_cfa_offset
				m.cfa.offset = int64(d.uleb())
			case 0x13: // def_cfa_offset_sf
				m.cfa.offset = d.sleb() * c.dataAlign
			case 0x0f: // def_cfa_expression
				m.cfa = rule{kind: isValue, code: block()}
			case 0x10: // expression
				n := d.uleb()
				*reg(n) = rule{kind: atAddress, code: block()}
			case 0x16: // val_expression
				n := d.uleb()
				*reg(n) = rule{kind: isValue, code: block()}
			case 0x11: // offset_extended_sf
				n := d.uleb()
				*reg(n) = rule{kind: atOffset, offset: d.sleb() * c.dataAlign}
			case 0x14: // val_offset
				n := d.uleb()
				*reg(n) = rule{kind: isOffset, offset: factored(d.uleb())}
			case 0x15: // val_offset_sf
				n := d.uleb()
				*reg(n) = rule{kind: isOffset, offset: d.sleb() * c.dataAlign}
			case 0x2e: // GNU_args_size
				d.uleb()
			case 0x2f: // GNU_negative_offset_extended
				n := d.uleb()
				*reg(n) = rule{kind: atOffset, offset: -factored(d.uleb())}
			default:
				return fmt.Errorf("%w: call frame instruction %#x", errCorrupt, op)
			}
		}
		if err != nil || d.failed {
			return errCorrupt
		}
	}
	return nil
}

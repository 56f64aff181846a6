package patch

import "encoding/binary"

// flow says where control goes behind an instruction.
type flow int

const (
	next     flow = iota // to the next instruction
	branch               // to the target or the next instruction
	call                 // away, perhaps to come back to the next instruction
	jump                 // to the target
	computed             // to an address in a register or in memory
	ends                 // away: a return, or an instruction that faults
)

// instruction is what a plan has to know of one.
type instruction struct {
	size   int
	flow   flow
	target uint64 // of branches, jumps and direct calls; 0 if there is none
}

const maxInstruction = 15

// Operands behind an opcode, as letters of the tables below.
//
//	.  none              m  ModRM            b  8-bit immediate
//	z  16/32-bit imm.    B  ModRM, 8-bit     Z  ModRM, 16/32-bit
//	v  16/32/64-bit imm. w  16-bit imm.      o  64-bit address
//	j  8-bit branch      J  32-bit branch    e  16-bit and 8-bit imm.
//	p  prefix            x  decoded apart    -  invalid in 64-bit mode
//
// Intel SDM volume 2, appendix A, tables.
const (
	oneByte = "mmmmbz--mmmmbz-x" + "mmmmbz--mmmmbz--" + // 00
		"mmmmbzp-mmmmbzp-" + "mmmmbzp-mmmmbzp-" + // 20
		"pppppppppppppppp" + "................" + // 40: REX
		"--xmppppzZbB...." + "jjjjjjjjjjjjjjjj" + // 60
		"BZ-Bmmmmmmmmmmmm" + "..........-....." + // 80
		"oooo....bz......" + "bbbbbbbbvvvvvvvv" + // a0
		"BBw.xxBZe.w..b-." + "mmmm---.mmmmmmmm" + // c0
		"jjjjbbbbJJ-j...." + "p.pp..xx......mm" // e0
	twoByte = "mmmm-...mm-.-m.B" + "mmmmmmmmmmmmmmmm" + // 00
		"mmmm----mmmmmmmm" + "........x-x-----" + // 20
		"mmmmmmmmmmmmmmmm" + "mmmmmmmmmmmmmmmm" + // 40
		"mmmmmmmmmmmmmmmm" + "BBBBmmm.-m--mmmm" + // 60
		"JJJJJJJJJJJJJJJJ" + "mmmmmmmmmmmmmmmm" + // 80
		"...mBm--...mBmmm" + "mmmmmmmmmmBmmmmm" + // a0
		"mmBmBBBm........" + "mmmmmmmmmmmmmmmm" + // c0
		"mmmmmmmmmmmmmmmm" + "mmmmmmmmmmmmmmmm" // e0
)

// decode reads the instruction at the start of code, which lies at address.
// False means that it is invalid, or newer than this decoder.
func decode(code []byte, address uint64) (instruction, bool) {
	code = code[:min(len(code), maxInstruction)]
	i, word, wide := 0, false, false
	for ; i < len(code) && oneByte[code[i]] == 'p'; i++ {
		switch c := code[i]; {
		case c == 0x66:
			word = true
		case c&0xf0 == 0x40:
			wide = c&8 != 0
			if i+1 < len(code) && oneByte[code[i+1]] == 'p' {
				wide = false // a REX prefix counts only right before the opcode
			}
		}
	}
	if i >= len(code) {
		return instruction{}, false
	}
	op := code[i]
	i++
	kind := oneByte[op]
	two := false
	switch {
	case op == 0x0f:
		if i >= len(code) {
			return instruction{}, false
		}
		two, op = true, code[i]
		i++
		switch kind = twoByte[op]; op {
		case 0x38:
			kind = 'm'
			i++
		case 0x3a:
			kind = 'B'
			i++
		}
	case op == 0xc4 || op == 0xc5 || op == 0x62:
		return decodeVector(code, i, op)
	case op == 0xf6 || op == 0xf7:
		kind = 'm'
		if i < len(code) && code[i]>>3&7 < 2 {
			kind = 'B'
			if op == 0xf7 {
				kind = 'Z'
			}
		}
	case op == 0x8f && i < len(code) && code[i]>>3&7 != 0, // AMD's XOP
		op == 0xff && i < len(code) && undefined(code[i]):
		return instruction{}, false
	}
	immediate := 0
	switch kind {
	case '-', 'x':
		return instruction{}, false
	case 'b', 'B', 'j':
		immediate = 1
	case 'z', 'Z':
		immediate = 4
		if word && !wide {
			immediate = 2
		}
	case 'v':
		switch {
		case wide:
			immediate = 8
		case word:
			immediate = 2
		default:
			immediate = 4
		}
	case 'w':
		immediate = 2
	case 'e':
		immediate = 3
	case 'o':
		immediate = 8
	case 'J':
		immediate = 4
	}
	modrm := i
	if kind == 'm' || kind == 'B' || kind == 'Z' {
		n, ok := operandLen(code, i)
		if !ok {
			return instruction{}, false
		}
		i += n
	}
	i += immediate
	if i > len(code) {
		return instruction{}, false
	}
	in := instruction{size: i}
	end := address + uint64(i)
	switch kind {
	case 'j':
		in.flow = branch
		in.target = end + uint64(int64(int8(code[i-1])))
	case 'J':
		in.flow = branch
		in.target = end + uint64(int64(int32(binary.LittleEndian.Uint32(code[i-4:]))))
	}
	in.flow = flowOf(two, op, code[modrm:i], in.flow)
	return in, true
}

// undefined reports whether the opcode 0xff means nothing with a ModRM byte:
// far calls and jumps take their target from memory only (SDM volume 2, CALL and
// JMP). The bytes are frequent: a constant -1 in front of a short jump.
func undefined(modrm byte) bool {
	const farCall, farJump, none, register = 3, 5, 7, 0xc0
	op := modrm >> 3 & 7
	return op == none || modrm >= register && (op == farCall || op == farJump)
}

// flowOf corrects a flow for opcodes whose operands do not tell.
func flowOf(two bool, op byte, operands []byte, f flow) flow {
	if two {
		switch op {
		case 0x0b, 0xb9, 0xff: // ud2, ud1, ud0
			return ends
		}
		return f
	}
	switch op {
	case 0xe8:
		return call
	case 0xe9, 0xeb:
		return jump
	case 0xc2, 0xc3, 0xca, 0xcb, 0xcf, 0xf4: // returns, hlt
		return ends
	case 0xff:
		switch operands[0] >> 3 & 7 {
		case 2, 3:
			return call
		case 4, 5:
			return computed
		}
	}
	return f
}

// decodeVector reads an instruction with a VEX or EVEX prefix, whose first
// byte is op and whose rest begins at i (SDM volume 2, 2.3 and 2.7).
func decodeVector(code []byte, i int, op byte) (instruction, bool) {
	prefix := 1 // bytes between op and the opcode
	switch op {
	case 0xc4:
		prefix = 2
	case 0x62:
		prefix = 3
	}
	if i+prefix >= len(code) {
		return instruction{}, false
	}
	opmap := byte(1)
	switch op {
	case 0xc4:
		opmap = code[i] & 0x1f
	case 0x62:
		opmap = code[i] & 7
	}
	i += prefix
	opcode := code[i]
	i++
	immediate := 0
	switch opmap {
	case 1:
		if opcode == 0x77 {
			return instruction{size: i}, true // vzeroupper
		}
		if twoByte[opcode] == 'B' {
			immediate = 1
		}
	case 2:
	case 3:
		immediate = 1
	case 5, 6:
		if op != 0x62 {
			return instruction{}, false
		}
	default:
		return instruction{}, false
	}
	n, ok := operandLen(code, i)
	if i += n + immediate; !ok || i > len(code) {
		return instruction{}, false
	}
	return instruction{size: i}, true
}

// operandLen returns the length of a ModRM byte at i and what belongs to it.
func operandLen(code []byte, i int) (int, bool) {
	if i >= len(code) {
		return 0, false
	}
	mod, rm, n := code[i]>>6, code[i]&7, 1
	if mod == 3 {
		return n, true
	}
	if rm == 4 {
		if i+1 >= len(code) {
			return 0, false
		}
		rm = code[i+1] & 7
		n++
	}
	switch {
	case mod == 0 && rm == 5, mod == 2:
		n += 4
	case mod == 1:
		n++
	}
	return n, true
}

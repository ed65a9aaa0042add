//! `mma` in every form that is supported, and `ldmatrix`, `stmatrix` and `movmatrix`, against plain Rust.
//!
//! Where an element of a matrix lives is written here as the PTX ISA writes it, element by element ("Matrix fragments
//! for mma.m16n8k…"), which is not how the interpreter computes it.

use gpusim::simulator::{Arguments, Error, Simulator};
use half::{bf16, f16};

/// Row and column of lane `lane`'s element `i`.
type Place = fn(lane: usize, i: usize) -> (usize, usize);

/// A and C of the 16-row shapes: pairs of 16-bit elements, rows g and g + 8 in turn, then eight columns on.
fn pairs_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i < 2 || (4..6).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
}

fn pairs_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, lane >> 2)
}

/// 8-bit elements: four a register.
fn bytes_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i < 4 || (8..12).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
}

fn bytes_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, lane >> 2)
}

/// 32-bit elements: one a register.
fn words_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i == 0 || i == 2 { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 + if i < 2 { 0 } else { 4 })
}

fn words_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 + if i < 1 { 0 } else { 4 }, lane >> 2)
}

/// The accumulators of all shapes.
fn sums(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, lane % 4 * 2 + (i & 1))
}

/// An element type: how many bytes, what bits a small integer has, and what value bits have.
#[derive(Clone, Copy)]
struct Kind {
    name: &'static str,
    bytes: usize,
    bits: fn(f64) -> u64,
    value: fn(u64) -> f64,
}

const F16: Kind = Kind {
    name: "f16",
    bytes: 2,
    bits: |x| f16::from_f64(x).to_bits().into(),
    value: |bits| f16::from_bits(bits as u16).to_f64(),
};
const BF16: Kind = Kind {
    name: "bf16",
    bytes: 2,
    bits: |x| bf16::from_f64(x).to_bits().into(),
    value: |bits| bf16::from_bits(bits as u16).to_f64(),
};
const F32: Kind = Kind {
    name: "f32",
    bytes: 4,
    bits: |x| (x as f32).to_bits().into(),
    value: |bits| f32::from_bits(bits as u32).into(),
};
const TF32: Kind = Kind { name: "tf32", ..F32 };
const F64: Kind = Kind { name: "f64", bytes: 8, bits: f64::to_bits, value: f64::from_bits };
const S8: Kind = Kind { name: "s8", bytes: 1, bits: |x| x as i8 as u8 as u64, value: |bits| (bits as i8).into() };
const U8: Kind = Kind { name: "u8", bytes: 1, bits: |x| x as i64 as u8 as u64, value: |bits| (bits as u8).into() };
const S32: Kind = Kind { name: "s32", bytes: 4, bits: |x| x as i32 as u32 as u64, value: |bits| (bits as i32).into() };

/// A matrix of `rows` by `columns`, and where its elements live.
struct Matrix {
    kind: Kind,
    rows: usize,
    columns: usize,
    place: Place,
}

impl Matrix {
    /// Elements of a lane, and the registers that hold them.
    fn elements(&self) -> usize {
        self.rows * self.columns / 32
    }

    fn register_bytes(&self) -> usize {
        self.kind.bytes.max(4)
    }

    fn registers(&self) -> usize {
        self.elements() * self.kind.bytes / self.register_bytes()
    }

    /// The lanes' registers, lane after lane, of the matrix `values`.
    fn scatter(&self, values: &[f64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for lane in 0..32 {
            for i in 0..self.elements() {
                let (row, column) = (self.place)(lane, i);
                let bits = (self.kind.bits)(values[row * self.columns + column]);
                bytes.extend(&bits.to_le_bytes()[..self.kind.bytes]);
            }
        }
        bytes
    }

    /// The matrix that the lanes' registers hold.
    fn gather(&self, bytes: &[u8]) -> Vec<f64> {
        let mut values = vec![f64::NAN; self.rows * self.columns];
        for (at, element) in bytes.chunks(self.kind.bytes).enumerate() {
            let (row, column) = (self.place)(at / self.elements(), at % self.elements());
            let mut bits = [0; 8];
            bits[..element.len()].copy_from_slice(element);
            values[row * self.columns + column] = (self.kind.value)(u64::from_le_bytes(bits));
        }
        values
    }
}

/// `count` registers as PTX lists them: `{%a0,%a1}`.
fn list(name: &str, count: usize) -> String {
    let names: Vec<String> = (0..count).map(|i| format!("%{name}{i}")).collect();
    format!("{{{}}}", names.join(","))
}

/// D = A·B + C by one `mma` of a warp, with the type names of D, A, B, C.
fn multiply(shape: &str, [d, a, b, c]: [&Matrix; 4], inputs: [&[f64]; 3]) -> Result<Vec<f64>, Error> {
    let width = |matrix: &Matrix| 8 * matrix.register_bytes();
    let declare = |name: &str, m: &Matrix| format!(".reg .b{} %{name}<{}>;\n", width(m), m.registers());
    let each = |instruction: &str, name: &str, m: &Matrix| -> String {
        let bytes = m.registers() * m.register_bytes();
        let address = format!("mad.lo.u64 %at, %lane, {bytes}, %{name};\n");
        let moves = (0..m.registers()).map(|i| {
            let (offset, width) = (i * m.register_bytes(), width(m));
            match instruction {
                "ld" => format!("ld.global.b{width} %{name}{i}, [%at+{offset}];\n"),
                _ => format!("st.global.b{width} [%at+{offset}], %{name}{i};\n"),
            }
        });
        address + &moves.collect::<String>()
    };
    let kinds = [d, a, b, c].map(|matrix| format!(".{}", matrix.kind.name)).concat();
    let ptx = format!(
        ".version 8.0\n.target sm_80\n.address_size 64\n\
         .visible .entry k(.param .u64 pd, .param .u64 pa, .param .u64 pb, .param .u64 pc) {{\n\
         .reg .b64 %d, %a, %b, %c, %at, %lane; .reg .b32 %t;\n{}{}{}{}\
         ld.param.u64 %d, [pd]; ld.param.u64 %a, [pa]; ld.param.u64 %b, [pb]; ld.param.u64 %c, [pc];\n\
         mov.u32 %t, %laneid; cvt.u64.u32 %lane, %t;\n{}{}{}\
         mma.sync.aligned.{shape}.row.col{kinds} {}, {}, {}, {};\n{}ret; }}",
        declare("d", d),
        declare("a", a),
        declare("b", b),
        declare("c", c),
        each("ld", "a", a),
        each("ld", "b", b),
        each("ld", "c", c),
        list("d", d.registers()),
        list("a", a.registers()),
        list("b", b.registers()),
        list("c", c.registers()),
        each("st", "d", d),
    );
    let mut gpu = Simulator::new(&ptx)?;
    let bytes = 32 * d.registers() * d.register_bytes();
    let out = gpu.allocate(bytes)?;
    let mut arguments = Arguments::new().pointer(out);
    for (matrix, values) in [a, b, c].into_iter().zip(inputs) {
        arguments = arguments.pointer(gpu.upload(&matrix.scatter(values))?);
    }
    gpu.launch("k", [1, 1, 1], [32, 1, 1], 0, &arguments)?;
    Ok(d.gather(&gpu.read(out, bytes)))
}

/// Integers from `low` on, fewer than `count`, in no order.
fn noise(n: usize, seed: u64, low: f64, count: u64) -> Vec<f64> {
    let scatter = |i: u64| (i + 977 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (0..n as u64).map(|i| low + (scatter(i) % count) as f64).collect()
}

/// `mma` of this shape on integers so small that every type holds the sums exactly.
fn check(shape: &str, [m, k]: [usize; 2], [a_kind, b_kind, sum]: [Kind; 3], [a_place, b_place]: [Place; 2]) {
    let a = Matrix { kind: a_kind, rows: m, columns: k, place: a_place };
    let b = Matrix { kind: b_kind, rows: k, columns: 8, place: b_place };
    let c = Matrix { kind: sum, rows: m, columns: 8, place: sums };
    // Bytes take their whole range, since their sums have room.
    let range = |kind: Kind| match kind.name {
        "s8" => (-128.0, 256),
        "u8" => (0.0, 256),
        _ => (-7.0, 15),
    };
    let values = |matrix: &Matrix, seed| {
        let (low, count) = range(matrix.kind);
        noise(matrix.rows * matrix.columns, seed, low, count)
    };
    let (av, bv, cv) = (values(&a, 1), values(&b, 2), values(&c, 3));
    let found = multiply(shape, [&c, &a, &b, &c], [&av, &bv, &cv]);
    let found = found.unwrap_or_else(|error| panic!("{shape} {} {}: {error}", a_kind.name, b_kind.name));
    for at in 0..m * 8 {
        let products = (0..k).map(|i| av[at / 8 * k + i] * bv[i * 8 + at % 8]);
        let expected = cv[at] + products.sum::<f64>();
        assert_eq!(found[at], expected, "{shape} {} {}: element {at}", a_kind.name, b_kind.name);
    }
}

#[test]
fn products_of_16_bit_floats() {
    for kind in [F16, BF16] {
        check("m16n8k16", [16, 16], [kind, kind, F32], [pairs_a, pairs_b]);
        check("m16n8k8", [16, 8], [kind, kind, F32], [pairs_a, pairs_b]);
    }
}

#[test]
fn products_that_accumulate_in_halves() {
    check("m16n8k16", [16, 16], [F16, F16, F16], [pairs_a, pairs_b]);
    check("m16n8k8", [16, 8], [F16, F16, F16], [pairs_a, pairs_b]);
}

#[test]
fn a_half_accumulator_is_rounded_once() {
    let half = |rows, columns, place| Matrix { kind: F16, rows, columns, place };
    let (a, b, c) = (half(16, 8, pairs_a as Place), half(8, 8, pairs_b as Place), half(16, 8, sums as Place));
    // 2048 + 8 · 0.25 = 2050, which halves hold; 2048.25 they don't, so that rounding each sum would give 2048.
    let found = multiply("m16n8k8", [&c, &a, &b, &c], [&[0.25; 128], &[1.0; 64], &[2048.0; 128]]).unwrap();
    assert_eq!(found, [2050.0; 128]);
    // Beyond 65504 is infinite.
    let found = multiply("m16n8k8", [&c, &a, &b, &c], [&[100.0; 128], &[100.0; 64], &[0.0; 128]]).unwrap();
    assert_eq!(found, [f64::INFINITY; 128]);
}

#[test]
fn products_in_tf32() {
    check("m16n8k8", [16, 8], [TF32, TF32, F32], [words_a, words_b]);
    check("m16n8k4", [16, 4], [TF32, TF32, F32], [words_a, words_b]);
}

#[test]
fn products_of_bytes() {
    for (a, b) in [(S8, S8), (U8, U8), (S8, U8), (U8, S8)] {
        check("m16n8k32", [16, 32], [a, b, S32], [bytes_a, bytes_b]);
        check("m16n8k16", [16, 16], [a, b, S32], [bytes_a, bytes_b]);
    }
}

#[test]
fn sums_of_bytes_wrap() {
    let (a, b) = (
        Matrix { kind: U8, rows: 16, columns: 32, place: bytes_a },
        Matrix { kind: U8, rows: 32, columns: 8, place: bytes_b },
    );
    let c = Matrix { kind: S32, rows: 16, columns: 8, place: sums };
    let most = f64::from(i32::MAX);
    let found = multiply("m16n8k32", [&c, &a, &b, &c], [&[1.0; 512], &[1.0; 256], &[most; 128]]).unwrap();
    assert_eq!(found, [f64::from(i32::MIN) + 31.0; 128]);
}

#[test]
fn products_in_doubles() {
    let place_a: Place = |lane, _| (lane >> 2, lane % 4);
    let place_b: Place = |lane, _| (lane % 4, lane >> 2);
    check("m8n8k4", [8, 4], [F64, F64, F64], [place_a, place_b]);
}

#[test]
fn forms_that_are_missing_are_named() {
    for form in [
        "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k64.row.col.s32.s4.s4.s32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1,%r2,%r3};",
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f16 {%r0,%r1,%r2,%r3}, {%r0,%r1,%r2,%r3}, {%r4,%r5}, {%r0,%r1};",
        "stmatrix.sync.aligned.m16n8.x1.trans.shared.b8 [%r0], {%r1};",
        "ldmatrix.sync.aligned.m8n16.x1.shared.b8x16.b6x16_p32 {%r1}, [%r0];",
        "movmatrix.sync.aligned.m8n8.b16 %r0, %r1;",
    ] {
        let ptx = format!(
            ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k() {{ .reg .b32 %r<6>;\n{form}\nret; }}"
        );
        let error = Simulator::new(&ptx).unwrap().launch("k", [1, 1, 1], [32, 1, 1], 0, &Arguments::new()).unwrap_err();
        let opcode = form.split('.').next().unwrap();
        assert!(matches!(error, Error::Decode(_)) && error.to_string().contains(opcode), "{form}: {error}");
    }
}

/// Runs `body` on a warp. %v0 to %v3 hold words 0 to 3 of 128 in lane order (word i of lane l is 4·l + i), and what
/// is in them afterwards comes back. %row is a lane's row of 16 bytes in shared memory, at %tile.
fn exchange(body: &str, input: &[u32]) -> Vec<u32> {
    let ptx = format!(
        ".version 8.0\n.target sm_90\n.address_size 64\n\
         .visible .entry k(.param .u64 out, .param .u64 in) {{\n\
         .shared .align 128 .b8 tile[512]; .reg .b64 %out, %in, %at; .reg .b32 %v<4>, %t, %tile, %row, %own;\n\
         ld.param.u64 %out, [out]; ld.param.u64 %in, [in];\n\
         mov.u32 %t, %laneid; mul.wide.u32 %at, %t, 16; add.u64 %in, %in, %at; add.u64 %out, %out, %at;\n\
         mov.u32 %tile, tile; mad.lo.u32 %row, %t, 16, %tile; mov.u32 %own, %row;\n\
         ld.global.v4.b32 {{%v0,%v1,%v2,%v3}}, [%in];\n\
         {body}\n\
         st.global.v4.b32 [%out], {{%v0,%v1,%v2,%v3}}; ret; }}"
    );
    let mut gpu = Simulator::new(&ptx).unwrap();
    let input = gpu.upload(&input.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>()).unwrap();
    let out = gpu.allocate(512).unwrap();
    let arguments = Arguments::new().pointer(out).pointer(input);
    gpu.launch("k", [1, 1, 1], [32, 1, 1], 0, &arguments).unwrap_or_else(|error| panic!("{body}: {error}"));
    gpu.read(out, 512).chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

/// Two 16-bit elements, low first.
fn pack(low: usize, high: usize) -> u32 {
    (low | high << 16) as u32
}

/// Element (row, column) of the matrix in %v`m`, as distinct as 16 bits allow.
fn element(m: usize, row: usize, column: usize) -> usize {
    1000 * m + 8 * row + column
}

/// The fragments of four 8×8 matrices: lane l's register m holds row l / 4, columns 2·(l mod 4) and one on.
fn fragments(transposed: bool) -> Vec<u32> {
    let value = |m, row, column| if transposed { element(m, column, row) } else { element(m, row, column) };
    let word = |at: usize| {
        let (lane, m) = (at / 4, at % 4);
        let (row, column) = (lane / 4, lane % 4 * 2);
        pack(value(m, row, column), value(m, row, column + 1))
    };
    (0..128).map(word).collect()
}

/// The four matrices row by row, 16 bytes a row: what `ldmatrix` reads and `stmatrix` writes.
fn rows() -> Vec<u32> {
    let word = |at: usize| {
        let (m, row, column) = (at / 32, at % 32 / 4, at % 4 * 2);
        pack(element(m, row, column), element(m, row, column + 1))
    };
    (0..128).map(word).collect()
}

const STORE_ROW: &str = "st.shared.v4.b32 [%own], {%v0,%v1,%v2,%v3}; bar.sync 0;";
const LOAD_ROW: &str = "bar.sync 0; ld.shared.v4.b32 {%v0,%v1,%v2,%v3}, [%own];";

#[test]
fn movmatrix_transposes() {
    let body: String = (0..4).map(|m| format!("movmatrix.sync.aligned.m8n8.trans.b16 %v{m}, %v{m};\n")).collect();
    assert_eq!(exchange(&body, &fragments(false)), fragments(true));
}

#[test]
fn ldmatrix_loads_four_matrices() {
    for (trans, transposed) in [("", false), (".trans", true)] {
        let body = format!("{STORE_ROW} ldmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 {{%v0,%v1,%v2,%v3}}, [%row];");
        assert_eq!(exchange(&body, &rows()), fragments(transposed), "x4{trans}");
    }
}

#[test]
fn stmatrix_stores_four_matrices() {
    for (trans, transposed) in [("", false), (".trans", true)] {
        let body = format!("stmatrix.sync.aligned.m8n8.x4{trans}.shared.b16 [%row], {{%v0,%v1,%v2,%v3}}; {LOAD_ROW}");
        assert_eq!(exchange(&body, &fragments(transposed)), rows(), "x4{trans}");
    }
}

#[test]
fn fewer_matrices_take_fewer_addresses() {
    // Lanes whose address isn't asked for have one outside of shared memory.
    let forms = [(1, "{%v0}"), (2, "{%v0,%v1}")];
    for (count, list) in forms {
        let lost = format!("setp.ge.u32 %p, %t, {}; @%p mov.u32 %row, 0x7ffffff0;", 8 * count);
        let load =
            format!(".reg .pred %p; {STORE_ROW} {lost} ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {list}, [%row];");
        let (found, whole) = (exchange(&load, &rows()), fragments(false));
        let stays = rows();
        for at in 0..128 {
            let expected = if at % 4 < count { whole[at] } else { stays[at] };
            assert_eq!(found[at], expected, "ldmatrix x{count}, word {at}");
        }
        let store = format!(
            ".reg .pred %p, %q; {lost} stmatrix.sync.aligned.m8n8.x{count}.shared.b16 [%row], {list};\n\
             bar.sync 0; @!%p ld.shared.v4.b32 {{%v0,%v1,%v2,%v3}}, [%own];"
        );
        let found = exchange(&store, &fragments(false));
        assert_eq!(found[..32 * count], rows()[..32 * count], "stmatrix x{count}");
    }
}

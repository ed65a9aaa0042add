//! Where the elements of a matrix live in a warp's registers, as the PTX ISA writes it, and one `mma` of them.

use gpusim::exec::TensorSums;
use gpusim::simulator::{Arguments, Error, Simulator};
use half::{bf16, f16};

/// Row and column of lane `lane`'s element `i`.
pub type Place = fn(lane: usize, i: usize) -> (usize, usize);

/// A and C of the 16-row shapes: pairs of 16-bit elements, rows g and g + 8 in turn, then eight columns on.
pub fn pairs_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i < 2 || (4..6).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 * 2 + (i & 1) + if i < 4 { 0 } else { 8 })
}

pub fn pairs_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 2 + (i & 1) + if i < 2 { 0 } else { 8 }, lane >> 2)
}

/// 8-bit elements: four a register.
pub fn bytes_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i < 4 || (8..12).contains(&i) { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 * 4 + (i & 3) + if i < 8 { 0 } else { 16 })
}

pub fn bytes_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 * 4 + (i & 3) + if i < 4 { 0 } else { 16 }, lane >> 2)
}

/// 32-bit elements: one a register.
pub fn words_a(lane: usize, i: usize) -> (usize, usize) {
    let row = if i == 0 || i == 2 { lane >> 2 } else { (lane >> 2) + 8 };
    (row, lane % 4 + if i < 2 { 0 } else { 4 })
}

pub fn words_b(lane: usize, i: usize) -> (usize, usize) {
    (lane % 4 + if i < 1 { 0 } else { 4 }, lane >> 2)
}

/// The accumulators of all shapes.
pub fn sums(lane: usize, i: usize) -> (usize, usize) {
    (if i < 2 { lane >> 2 } else { (lane >> 2) + 8 }, lane % 4 * 2 + (i & 1))
}

/// An element type: how many bytes, what bits a small integer has, and what value bits have.
#[derive(Clone, Copy)]
pub struct Kind {
    pub name: &'static str,
    pub bytes: usize,
    pub bits: fn(f64) -> u64,
    pub value: fn(u64) -> f64,
}

pub const F16: Kind = Kind {
    name: "f16",
    bytes: 2,
    bits: |x| f16::from_f64(x).to_bits().into(),
    value: |bits| f16::from_bits(bits as u16).to_f64(),
};
pub const BF16: Kind = Kind {
    name: "bf16",
    bytes: 2,
    bits: |x| bf16::from_f64(x).to_bits().into(),
    value: |bits| bf16::from_bits(bits as u16).to_f64(),
};
pub const F32: Kind = Kind {
    name: "f32",
    bytes: 4,
    bits: |x| (x as f32).to_bits().into(),
    value: |bits| f32::from_bits(bits as u32).into(),
};
pub const TF32: Kind = Kind { name: "tf32", ..F32 };
pub const F64: Kind = Kind { name: "f64", bytes: 8, bits: f64::to_bits, value: f64::from_bits };
pub const S8: Kind = Kind { name: "s8", bytes: 1, bits: |x| x as i8 as u8 as u64, value: |bits| (bits as i8).into() };
pub const U8: Kind = Kind { name: "u8", bytes: 1, bits: |x| x as i64 as u8 as u64, value: |bits| (bits as u8).into() };
pub const S32: Kind =
    Kind { name: "s32", bytes: 4, bits: |x| x as i32 as u32 as u64, value: |bits| (bits as i32).into() };

/// A matrix of `rows` by `columns`, and where its elements live.
pub struct Matrix {
    pub kind: Kind,
    pub rows: usize,
    pub columns: usize,
    pub place: Place,
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

/// D = A·B + C by one `mma` of a warp that takes its sums in this way, with the type names of D, A, B, C.
pub fn multiply(
    order: TensorSums,
    shape: &str,
    [d, a, b, c]: [&Matrix; 4],
    inputs: [&[f64]; 3],
) -> Result<Vec<f64>, Error> {
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
    gpu.sums = order;
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
pub fn noise(n: usize, seed: u64, low: f64, count: u64) -> Vec<f64> {
    let scatter = |i: u64| (i + 977 * seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    (0..n as u64).map(|i| low + (scatter(i) % count) as f64).collect()
}

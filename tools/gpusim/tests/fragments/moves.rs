//! `ldmatrix`, `stmatrix` and `movmatrix` against plain Rust.

use gpusim::simulator::{Arguments, Simulator};

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

//! Functions that the driver provides to kernels.

use super::{Core, Done};
use crate::fault::Kind;
use crate::program::{Act, Class, DecodeError, Decoder, Inst};
use crate::ptx::ast::Operand;

pub(super) fn decode(d: &mut Decoder<'_>, name: &str, inputs: &[Operand]) -> Result<Inst, DecodeError> {
    match name {
        // message, file, line, function, character size.
        "__assertfail" if inputs.len() == 5 => Ok(Inst::new(Class::Control, Act::Lanes(assertion_failed), &[])),
        _ => d.fail(format!("the function `{name}` is not supported: it has no body")),
    }
}

unsafe fn assertion_failed(core: &mut Core<'_>, _: &Inst, mask: u32) -> Done {
    let what = "device-side assert (its text is in the kernel's source at this line)";
    Err(core.fault(mask.trailing_zeros(), Kind::Assert(what.into())))
}

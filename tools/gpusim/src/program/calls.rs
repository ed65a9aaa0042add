//! Calls of device functions: each is decoded once a kernel, with registers and parameters of its own.

use super::decode::{Decoder, Result};
use super::names::Meaning;
use super::{Act, CallSite, Class, Copy, Inst, NEVER};
use crate::exec;
use crate::ptx::ast::{Function, Instruction, Operand, Variable};

/// A function's place, once decoded.
#[derive(Clone, Default)]
pub(super) struct Decoded {
    entry: u32,
    inputs: Vec<(u32, u32)>,
    outputs: Vec<(u32, u32)>,
}

impl Decoder<'_> {
    /// `call (out), function, (in)`: parameters are copied between frames, since PTX passes them in memory.
    pub(super) fn call(&mut self, ins: &Instruction) -> Result<Inst> {
        let mut operands = ins.operands.iter().peekable();
        let outputs = match operands.peek() {
            Some(Operand::Arguments(outputs)) => {
                operands.next();
                outputs.clone()
            }
            _ => Vec::new(),
        };
        let Some(Operand::Name(name)) = operands.next() else {
            return self.unsupported(ins);
        };
        let inputs = match operands.next() {
            Some(Operand::Arguments(inputs)) => inputs.clone(),
            None => Vec::new(),
            Some(_) => return self.unsupported(ins),
        };
        let Some(callee) = self.module.functions.iter().rfind(|f| f.name == *name && f.body.is_some()) else {
            return exec::decode_builtin(self, name, &inputs);
        };
        let place = |decoder: &Self, operand: &Operand| -> Result<(u32, u32)> {
            if let Operand::Name(name) = operand
                && let Meaning::Parameter(offset, bytes) = decoder.meaning(name)?
            {
                return Ok((offset, bytes));
            }
            decoder.fail(format!("{operand:?} as an argument of a call; only .param variables are supported"))
        };
        if self.open.contains(name) {
            return self.fail(format!("`{name}` calls itself; recursion is not supported"));
        }
        if inputs.len() != callee.parameters.len() || outputs.len() != callee.returns.len() {
            return self.fail(format!("a call of `{name}` with another number of arguments"));
        }
        let decoded = self.frame(callee);
        let mut site = CallSite { entry: 0, inputs: Vec::new(), outputs: Vec::new() };
        for (operand, &(to, bytes)) in inputs.iter().zip(&decoded.inputs) {
            let (from, have) = place(self, operand)?;
            site.inputs.push(Copy { from, to, bytes: bytes.min(have) });
        }
        for (operand, &(from, bytes)) in outputs.iter().zip(&decoded.outputs) {
            let (to, have) = place(self, operand)?;
            site.outputs.push(Copy { from, to, bytes: bytes.min(have) });
        }
        let call = self.calls.len() as u32;
        self.calls.push(site);
        self.pending.push((call, name.clone()));
        Ok(Inst::new(Class::Control, Act::Call(call), &[]))
    }

    /// The parameter space of a function, made on its first call.
    fn frame(&mut self, callee: &Function) -> Decoded {
        if let Some(known) = self.functions.get(&callee.name) {
            return known.clone();
        }
        let place = |decoder: &mut Self, variables: &[Variable]| -> Vec<(u32, u32)> {
            variables.iter().map(|v| (decoder.allocate_local(v), v.bytes() as u32)).collect()
        };
        let inputs = place(self, &callee.parameters);
        let outputs = place(self, &callee.returns);
        let decoded = Decoded { entry: NEVER, inputs, outputs };
        self.functions.insert(callee.name.clone(), decoded.clone());
        decoded
    }

    /// Decodes the function of call `call`, unless done before, and links them.
    pub(super) fn callee(&mut self, call: u32, name: &str) -> Result<()> {
        let mut decoded = self.functions[name].clone();
        if decoded.entry == NEVER {
            decoded.entry = self.code.len() as u32;
            let module = self.module;
            let Some(function) = module.functions.iter().rfind(|f| f.name == name && f.body.is_some()) else {
                return self.fail(format!("`{name}` has no body"));
            };
            let outer = self.scopes.set_aside();
            self.scopes.open();
            let formal = function.parameters.iter().zip(&decoded.inputs);
            for (variable, &(offset, bytes)) in formal.chain(function.returns.iter().zip(&decoded.outputs)) {
                self.scopes.declare(&variable.name, Meaning::Parameter(offset, bytes));
            }
            let waiting = std::mem::take(&mut self.pending);
            self.open.push(name.to_owned());
            self.functions.insert(name.to_owned(), decoded.clone());
            self.function_body(function)?;
            // Its own calls come before what waited: a path of open functions, so that recursion is seen.
            while let Some((call, name)) = self.pending.pop() {
                self.callee(call, &name)?;
            }
            self.open.pop();
            self.pending = waiting;
            self.scopes.restore(outer);
        }
        self.calls[call as usize].entry = decoded.entry;
        Ok(())
    }
}

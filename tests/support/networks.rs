//! Networks of what no published one has.

use onesheet::network::{Convolution, Depthwise, Network, resnet50};

/// Sums with no ReLU behind them: of two ways that owe a batch norm, of one that does and a pool's output in either order, and of two that
/// owe none. In between ReLUs in front of a convolution, of a depthwise one, of a pool and of a sum, whose inputs others read as well.
pub const SUMS: Network = Network {
    name: "sums",
    title: "a network of sums",
    base: |net| {
        let conv = |window, stride, pad| Convolution { filters: 3, window, stride, pad, bias: false };
        let strided = |net: &mut onesheet::network::Builder, name: &str| {
            let pad = net.same(net.input(), 3, 2);
            let y = net.conv(name, net.input(), conv(3, 2, pad))?;
            net.batch_norm(&format!("{name}_bn"), y, 1e-3)
        };
        let (first, second) = (strided(net, "first")?, strided(net, "second")?);
        let owing = net.add("both_owe", [first, second])?;

        let front = net.relu("in_front_of_two", owing)?;
        let pool = net.max_pool_same("pool", front, 3, 1)?;
        let x = net.conv("third", front, conv(1, 1, 0.into()))?;
        let x = net.batch_norm("third_bn", x, 1e-3)?;
        let x = net.add("pool_first", [pool, x])?;

        let front = net.relu("in_front_of_depthwise", x)?;
        let y = net.depthwise_conv("fourth", front, Depthwise { window: 3, stride: 1, pad: 1.into() })?;
        let y = net.batch_norm("fourth_bn", y, 1e-3)?;
        let y = net.add("owing_first", [y, x])?;

        let front = net.relu("in_front_of_a_sum", y)?;
        let sum = net.add("neither_owes", [front, y])?;
        let sum = net.add("both_finished", [owing, sum])?;
        net.max_pool_same("last_pool", sum, 3, 2)
    },
    ..resnet50::MINIATURE
};

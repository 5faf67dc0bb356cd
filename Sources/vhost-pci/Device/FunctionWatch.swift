import HostSystem
import PCI
import VFIO
import VfioUser

/// Whoever holds a function's other end, kernel or server, and its word that the function is lost.
struct FunctionWatch {
    private weak var function: (any PCIFunction)?

    /// Watches nothing.
    init() {}

    /// Calls `tell` on the loop's thread when the function cannot be used any longer. An emulated one
    /// is never lost.
    init(
        _ function: any PCIFunction,
        on loop: EventLoop,
        _ tell: @escaping (HostRefusal) -> Void
    ) throws(PCIError) {
        self.function = function
        if let function = function as? any HostFunction {
            let address = function.address
            try function.watch(on: loop, line: false) { event in
                if let refusal = event.refusal(of: address) { tell(refusal) }
            }
        } else if let client = function as? Client {
            try client.watch(on: loop, tell)
        }
    }

    /// Hears nothing any more.
    func stop() {
        (function as? any HostFunction)?.stopWatching()
        (function as? Client)?.stopWatching()
    }
}

public import HostSystem
public import PCI

extension VFIODevice {
    /// Tells of INTx where asked for, of requests to give the device back, and of errors.
    public func watch(
        on loop: EventLoop,
        line: Bool,
        _ tell: @escaping (HostFunctionEvent) -> Void
    ) throws(PCIError) {
        stopWatching()
        guard !line || count(of: .line) > 0 else { throw .vector(0) }
        var kinds: [(VFIOInterruptIndex, HostFunctionEvent)] = [
            (.request, .requested), (.error, .failed),
        ]
        if line { kinds.append((.line, .line)) }
        let watch = HostFunctionWatch(loop)
        watching = watch
        for (index, event) in kinds where count(of: index) > 0 {
            let signal = try presenting { () throws(SystemError) in try EventFD() }
            try watch.add(signal.descriptor) {
                if signal.drain() > 0 { tell(event) }
            }
            try connect(index, to: signal)
        }
    }

    /// Tells nothing any more.
    public func stopWatching() {
        watching?.end()
        guard watching != nil else { return }
        watching = nil
        for index in [VFIOInterruptIndex.request, .error, .line] where count(of: index) > 0 {
            try? connect(index, to: nil)
        }
    }
}

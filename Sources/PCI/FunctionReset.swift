public import HostSystem

/// Resets a function through the kernel.
public struct FunctionReset {
    private let tree: HostTree
    private let writer: any AttributeWriter

    /// Works on a host; `writer` carries the write out, the kernel unless told otherwise.
    public init(_ tree: HostTree, writer: (any AttributeWriter)? = nil) {
        self.tree = tree
        self.writer = writer ?? KernelAttributes(tree)
    }

    /// The write that resets a function.
    ///
    /// Throws `pci/reset` for a function that the kernel cannot reset (HI-J30), `reset/in-use` for
    /// one that a host driver or a process works with: it would lose its state under their hands.
    public func plan(_ address: PCIAddress, force: Bool = false) throws(PCIError) -> AttributeWrite
    {
        let record = try PCIBus.find(address, in: tree)
        let path = "\(record.directory)/reset"
        guard tree.exists(path) else {
            throw .refused(
                HostRefusal(
                    "pci/reset",
                    "the kernel has no way to reset \(address): there is no"
                        + " \(tree.place(of: path))",
                    remedy: "a virtio driver resets it through the status register when it starts"
                )
            )
        }
        var uses = DeviceUse.list(of: record, in: tree).map(\.text)
        if let driver = record.driver, !DriverBinding.userDrivers.contains(driver) {
            uses.append("the kernel driver \(driver) works with it")
        }
        guard force || uses.isEmpty else {
            throw .refused(
                HostRefusal(
                    "reset/in-use",
                    "\(address) would lose its state while \(uses.joined(separator: ", "))",
                    remedy: "end that use first; --force resets all the same"
                )
            )
        }
        return AttributeWrite("1", to: path)
    }

    /// Carries the write out.
    public func carryOut(_ write: AttributeWrite) throws(PCIError) {
        do { try writer.write(write.text, to: write.path) } catch {
            throw .refused(HostRefusal("pci/reset", "the reset failed: \(error)"))
        }
    }
}

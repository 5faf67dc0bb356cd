public import HostSystem
public import PCI

/// A PCI function of this machine, handed to this process by its kernel.
public protocol HostFunction: PCIFunction {
    /// Where the function is.
    var address: PCIAddress { get }
    /// The interface of the kernel in use: `group`, `iommufd` or `uio`.
    var interface: String { get }
    /// The kernel can reset the function by itself.
    var canReset: Bool { get }
    /// One sentence that whoever runs this must read; `nil` when an IOMMU confines the function.
    var warning: String? { get }

    /// Calls `tell` on the loop's thread for what the kernel says of the function, until
    /// `stopWatching` or the end of this object. What the kernel cannot say is never told.
    ///
    /// With `line`, INTx is told too; this takes the place of MSI-X. Throws `vector` for a function
    /// without INTx. Have the function lower it first (virtio: read the ISR status).
    func watch(
        on loop: EventLoop,
        line: Bool,
        _ tell: @escaping (HostFunctionEvent) -> Void
    ) throws(PCIError)

    /// Tells nothing any more.
    func stopWatching()

    /// Keeps INTx from coming, or lets it come again after it was told.
    func setLineMasked(_ isMasked: Bool) throws(PCIError)
}

/// What a kernel says of a function that it has handed out.
public enum HostFunctionEvent: Hashable, Sendable {
    /// INTx was asserted, and is masked until `setLineMasked(false)`.
    case line
    /// The kernel wants the function back, for an unbind or a removal, and waits for our close.
    case requested
    /// An uncorrectable error was reported on the way to the function; its registers and its memory
    /// accesses are not to be trusted.
    case failed
    /// The function was taken away.
    case gone

    /// Why the function cannot be used any longer; `nil` for an interrupt.
    public func refusal(of address: PCIAddress) -> HostRefusal? {
        switch self {
        case .line:
            nil
        case .requested:
            HostRefusal(
                "vfio/device-requested",
                "the kernel wants \(address) back: it is being unbound or removed",
                remedy: "this program lets go of it; bind it again to go on"
            )
        case .failed:
            HostRefusal(
                "vfio/device-error",
                "\(address) or the link to it reported an uncorrectable error",
                remedy: "see the kernel's log, then vhost-pci device reset \(address)"
            )
        case .gone:
            HostRefusal("pci/device-gone", "\(address) was taken away")
        }
    }
}

/// What a loop looks after for one function.
final class HostFunctionWatch {
    private let loop: EventLoop
    private var descriptors: [EventLoop.Source] = []
    private var timer: EventLoop.Source?

    init(_ loop: EventLoop) { self.loop = loop }

    /// Calls `handler` whenever the descriptor is readable.
    func add(
        _ descriptor: FileDescriptor,
        _ handler: @escaping () -> Void
    ) throws(PCIError) {
        let loop = loop
        descriptors.append(
            try presenting { () throws(SystemError) in try loop.watch(descriptor, handler) }
        )
    }

    /// Calls `handler` again and again.
    func repeating(everyMilliseconds period: UInt64, _ handler: @escaping () -> Void) {
        timer = loop.after(milliseconds: period) { [weak self] in
            guard let self, self.timer != nil else { return }
            self.repeating(everyMilliseconds: period, handler)
            handler()
        }
    }

    /// Forgets the descriptors; what repeats goes on.
    func endDescriptors() {
        for source in descriptors { loop.remove(source) }
        descriptors = []
    }

    /// Calls nobody any more.
    func end() {
        endDescriptors()
        if let timer { loop.remove(timer) }
        timer = nil
    }
}

/// Opens functions of this machine by the driver they are bound to.
public enum HostFunctions {
    /// Opens `address` through VFIO, or, when it is bound to uio_pci_generic, through UIO, which needs
    /// `withoutIsolation`. Throws `refused` with what stands in the way.
    public static func open(
        _ address: PCIAddress,
        withoutIsolation: Bool,
        in tree: HostTree = .live
    ) throws(PCIError) -> any HostFunction {
        let driver = tree.linkName("/sys/bus/pci/devices/\(address)/driver")
        if driver == UIOHost.driver {
            return try UIODevice.open(address, withoutIsolation: withoutIsolation, in: tree)
        }
        return try VFIODevice.open(address, in: tree)
    }
}

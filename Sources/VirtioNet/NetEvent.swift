public import VirtioSpec

/// What a network device that runs does, or suffers.
public enum NetEvent: Equatable, Sendable, CustomStringConvertible {
    /// The link changed.
    case link(isUp: Bool)
    /// The device asks for a reset: nothing is moved through it until then (HI-A48).
    case needsReset(DeviceStatus)
    /// The device vanished (HI-A53).
    case gone
    /// Something else went wrong, and the device goes on.
    case problem(String)

    /// One line for people.
    public var description: String {
        switch self {
        case .link(let isUp): "link \(isUp ? "up" : "down")"
        case .needsReset(let status): "device/needs-reset: status \(status)"
        case .gone: "pci/device-gone: status reads all ones"
        case .problem(let text): text
        }
    }
}

/// How a network device is to be used.
public struct NetOptions: Sendable {
    /// Queue pairs wanted; fewer where the device has fewer.
    public var queuePairs: Int
    /// Most entries of a ring: a power of two is used.
    public var ringSize: UInt16
    /// Receive queues interrupt; otherwise they are polled without pause.
    public var usesInterrupts: Bool
    /// Frames for other stations are taken in too, as a switch needs it.
    public var isPromiscuous: Bool

    /// One queue pair of 256 entries, polled, for all frames.
    public init(
        queuePairs: Int = 1,
        ringSize: UInt16 = 256,
        usesInterrupts: Bool = false,
        isPromiscuous: Bool = true
    ) {
        self.queuePairs = min(max(1, queuePairs), 64)
        self.ringSize = min(max(2, ringSize), 32768)
        self.usesInterrupts = usesInterrupts
        self.isPromiscuous = isPromiscuous
    }
}

/// The features that this driver takes.
enum NetFeatures {
    /// Those of a device's offer that are wanted and whose own conditions hold (virtio 1.3
    /// §5.1.3.1); all offloads are left. What ORDER_PLATFORM asks for is so anyway: on this
    /// architecture a store to a register is not seen before earlier stores to memory.
    static func wanted(_ offered: FeatureBits, pairs: Int) -> FeatureBits {
        var wanted: FeatureBits = [
            .netMAC, .netStatus, .netMTU, .netMergeableBuffers, .netControlQueue, .eventIndex,
            .accessPlatform, .orderPlatform,
        ]
        if offered.contains(.netControlQueue) {
            wanted.insert(.netControlReceive)
            if pairs > 1 { wanted.insert(.netMultiqueue) }
        }
        return wanted
    }
}

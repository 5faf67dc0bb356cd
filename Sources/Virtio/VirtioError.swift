public import HostSystem
public import PCI
public import VirtioSpec
public import Virtqueue

/// What can go wrong while a virtio device is driven. The id in front of each message is stable.
public enum VirtioError: Error, Sendable, CustomStringConvertible {
    /// The kernel refused.
    case system(SystemError)
    /// The PCI function refused.
    case pci(PCIError)
    /// A queue could not be set up, or broke.
    case queue(Int, QueueError)
    /// The device did not take the features, or offers too few (HI-A49).
    case features(offered: FeatureBits, wanted: FeatureBits)
    /// The device did not enable a queue.
    case queueRefused(Int)
    /// The device did not finish its reset in time (HI-A50).
    case resetTimeout(milliseconds: UInt64)
    /// The configuration changed on every read (HI-A51).
    case configurationUnstable
    /// The device claims something absurd (HI-A54).
    case configurationRange(String)
    /// The device asks for a reset.
    case needsReset(DeviceStatus)
    /// The device is gone: the status reads all ones (VPN-M-18).
    case deviceGone
    /// No answer on a control or admin queue before the deadline (HI-A47).
    case controlTimeout(String)
    /// An admin command failed: the command and what the device said.
    case command(String, String)
    /// An arena or a queue has no room.
    case noRoom(String)
    /// A part that does not exist.
    case notSupported(String)

    /// One line: error id first.
    public var description: String {
        switch self {
        case .system(let error): "\(error)"
        case .pci(let error): "\(error)"
        case .queue(let queue, let error): "\(error.rawValue): queue \(queue)"
        case .features(let offered, let wanted):
            "init/features: offered 0x\(String(offered.rawValue, radix: 16)),"
                + " wanted 0x\(String(wanted.rawValue, radix: 16))"
        case .queueRefused(let queue): "init/queue: the device did not enable queue \(queue)"
        case .resetTimeout(let milliseconds):
            "init/reset-timeout: status is not 0 after \(milliseconds) ms"
        case .configurationUnstable: "cfg/unstable: the configuration changes on every read"
        case .configurationRange(let what): "cfg/range: \(what)"
        case .needsReset(let status): "device/needs-reset: status \(status)"
        case .deviceGone: "pci/device-gone: status reads all ones"
        case .controlTimeout(let what): "ctrl/timeout: no answer to \(what)"
        case .command(let command, let answer): "admin/\(command): \(answer)"
        case .noRoom(let what): "limit/memory: no room for \(what)"
        case .notSupported(let what): "not supported: \(what)"
        }
    }
}

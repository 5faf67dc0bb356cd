import Glibc
import PCI
import VFIO

/// device-probe stray|line TRANSMITTER RECEIVER: what the product itself would never do to a device, or
/// has no use for, on two virtio network functions that are wired back to back and bound to vfio-pci
/// or uio_pci_generic.
///
///   stray   has them reach for memory that was never mapped for them: StrayDMA
///   line    lives on INTx of the receiver: LineInterrupts
///
/// The exit status is 0 when all was as it has to be, 1 with the reason in the last line when not.
@main
struct DeviceProbe {
    static func main() {
        let arguments = CommandLine.arguments
        guard arguments.count == 4, let first = PCIAddress(arguments[2]),
            let second = PCIAddress(arguments[3])
        else { usage() }
        do {
            let transmitter = try HostFunctions.open(first, withoutIsolation: true)
            let receiver = try HostFunctions.open(second, withoutIsolation: true)
            switch arguments[1] {
            case "stray": try StrayDMA.run(NetEnd(transmitter), NetEnd(receiver))
            case "line": try LineInterrupts.run(NetEnd(transmitter), NetEnd(receiver), receiver)
            default: usage()
            }
        } catch {
            print("device-probe: \(error)")
            exit(1)
        }
    }

    private static func usage() -> Never {
        print("usage: device-probe stray|line TRANSMITTER RECEIVER")
        exit(2)
    }

    static func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}

/// What must not happen.
enum ProbeError: Error, CustomStringConvertible {
    case reached(UInt64, isRead: Bool, changedAt: Int?)
    case lost(String)
    case damaged(String)
    case noPhysicalAddress
    case noInterrupt(frame: Int, count: Int)
    case ended(String)

    var description: String {
        switch self {
        case .reached(let address, let isRead, let change):
            "page 0x\(DeviceProbe.hex(address)) was" + (isRead ? " read and sent" : " not read")
                + ", " + (change.map { "overwritten from byte \($0)" } ?? "not written")
        case .lost(let when): "no good frame crosses \(when)"
        case .damaged(let when): "the frame that crosses \(when) is damaged"
        case .noPhysicalAddress: "/proc/self/pagemap does not tell physical addresses: run as root"
        case .noInterrupt(let frame, let count): "no interrupt for frame \(frame), \(count) before"
        case .ended(let event): "the kernel says: \(event)"
        }
    }
}

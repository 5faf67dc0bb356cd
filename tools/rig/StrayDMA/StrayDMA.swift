import Glibc
import HostSystem
import PCI
import VFIO

/// stray-dma TRANSMITTER RECEIVER: has devices reach for memory that was never mapped for them.
///
/// Two virtio network functions, wired back to back and bound to vfio-pci. The address they are given
/// is the physical one of a page of this process: exactly what they would read and overwrite if no
/// IOMMU stood in between. Between the trials and after them a good frame has to cross. The last line
/// names the address, for the kernel log to be searched; the exit status is 0 when the page was
/// neither read nor written.
@main
struct StrayDMA {
    static func main() {
        let arguments = CommandLine.arguments
        guard arguments.count == 3, let first = PCIAddress(arguments[1]),
            let second = PCIAddress(arguments[2])
        else {
            print("usage: stray-dma TRANSMITTER RECEIVER")
            exit(2)
        }
        do {
            try run(first, second)
        } catch {
            print("stray-dma: \(error)")
            exit(1)
        }
    }

    private static func run(_ first: PCIAddress, _ second: PCIAddress) throws {
        let transmitter = try NetEnd(VFIODevice.open(first))
        let receiver = try NetEnd(VFIODevice.open(second))
        let marker: UInt8 = 0xc5
        let canary = try CanaryPage(holding: NetEnd.frame(marker: marker))
        let address = canary.physicalAddress

        try cross(transmitter, receiver, "before")
        let sent = try deliver(transmitter, receiver, transmitFrom: address)
        // A device that gets an error for a read may send what it likes, but not what is in the page.
        guard sent?.contains(marker) != true else { throw StrayError.leaked(address) }
        try canary.check()
        let arrived =
            sent.map { "\($0.count) bytes arrived, none of the page's" } ?? "nothing arrived"
        print("transmit buffer at 0x\(hex(address)): \(arrived), \(transmitter.state)")

        try cross(transmitter, receiver, "after that")
        _ = try deliver(transmitter, receiver, receiveAt: address)
        try canary.check()
        print("receive buffer at 0x\(hex(address)): the page is unchanged, \(receiver.state)")

        try cross(transmitter, receiver, "after both")
        try transmitter.stop()
        try receiver.stop()
        print("page 0x\(hex(address)) is intact")
    }

    /// A frame in mapped memory has to arrive whole.
    private static func cross(
        _ transmitter: NetEnd,
        _ receiver: NetEnd,
        _ when: String
    ) throws {
        let frame = NetEnd.frame(marker: 0x3a)
        guard let got = try deliver(transmitter, receiver) else {
            throw StrayError.lost(when)
        }
        // Headers may differ: the receiver's has a buffer count.
        guard got.dropFirst(NetEnd.headerLength) == frame.dropFirst(NetEnd.headerLength) else {
            throw StrayError.damaged(when)
        }
        print("a good frame crosses \(when)")
    }

    /// Starts both, sends one frame and waits for it, at most a second; nil when nothing came.
    private static func deliver(
        _ transmitter: NetEnd,
        _ receiver: NetEnd,
        transmitFrom source: UInt64? = nil,
        receiveAt target: UInt64? = nil
    ) throws -> [UInt8]? {
        try receiver.start()
        try transmitter.start()
        try receiver.receive(at: target)
        try transmitter.transmit(from: source)
        let deadline = Deadline(milliseconds: 1000)
        while !deadline.hasPassed {
            if let frame = receiver.received() { return frame }
            usleep(500)
        }
        return nil
    }

    static func hex(_ value: UInt64) -> String { String(value, radix: 16) }
}

/// What must not happen.
enum StrayError: Error, CustomStringConvertible {
    case leaked(UInt64)
    case overwritten(UInt64, at: Int)
    case lost(String)
    case damaged(String)
    case noPhysicalAddress

    var description: String {
        switch self {
        case .leaked(let address):
            "memory at 0x\(StrayDMA.hex(address)) was read by the device and sent"
        case .overwritten(let address, let at):
            "memory at 0x\(StrayDMA.hex(address)) was overwritten by the device from byte \(at)"
        case .lost(let when): "no good frame crosses \(when)"
        case .damaged(let when): "the frame that crosses \(when) is damaged"
        case .noPhysicalAddress: "/proc/self/pagemap does not tell physical addresses: run as root"
        }
    }
}

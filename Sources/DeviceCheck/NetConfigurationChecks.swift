internal import GuestMemory
internal import HostSystem
internal import PCI
internal import Virtio
internal import VirtioSpec

/// DEV-N: the configuration of a network device.
struct NetConfigurationChecks {
    private static let mtuFeature = FeatureBits(bit: 3)

    private let device: CheckedDevice

    init(_ device: CheckedDevice) {
        self.device = device
    }

    func run(_ log: CheckLog) {
        field(log, "DEV-N-01", "MAC address", .netMAC, at: 0, 6) { bytes in
            .expect(bytes[0] & 1 == 0 && bytes.contains { $0 != 0 }, Self.address(bytes))
        }
        field(log, "DEV-N-02", "link status", .netStatus, at: 6, 2) { bytes in
            let value = Self.word(bytes)
            return .expect(value & ~3 == 0, "\(hex(value)), link \(value & 1 == 1 ? "up" : "down")")
        }
        field(log, "DEV-N-03", "number of queue pairs", .netMultiqueue, at: 8, 2) { bytes in
            let pairs = Self.word(bytes)
            return .expect((1...0x8000).contains(pairs), "\(pairs)")
        }
        field(log, "DEV-N-04", "MTU", Self.mtuFeature, at: 10, 2) { bytes in
            let mtu = Self.word(bytes)
            return .expect(mtu >= 68, "\(mtu)")
        }
        log.check("DEV-N-05", "number of queues") {
            guard device.isNet else { return .notApplicable("no network device") }
            let offered = try device.registers.offeredFeatures()
            var pairs = 1
            if offered.contains(.netMultiqueue) {
                pairs = Int(Self.word(try device.transport.readConfiguration(8, 2)))
            }
            let least = 2 * pairs + (offered.contains(.netControlQueue) ? 1 : 0)
            let count = Int(try device.registers.read(.queueCount))
            return .expect(count >= least, "\(count) queues, \(least) needed for \(pairs) pairs")
        }
        log.check("DEV-N-06", "MAC address at rest") {
            guard device.isNet else { return .notApplicable("no network device") }
            let offered = try device.registers.offeredFeatures()
            guard offered.contains(.netMAC) else { return .notApplicable("no MAC address") }
            let first = try device.transport.readConfiguration(0, 6)
            for turn in 2...20 {
                let next = try device.transport.readConfiguration(0, 6)
                if next != first {
                    return .fail("\(Self.address(first)), then \(Self.address(next)) (\(turn))")
                }
            }
            return .pass("20 times the same")
        }
    }

    private func field(
        _ log: CheckLog,
        _ id: String,
        _ subject: String,
        _ feature: FeatureBits,
        at offset: Int,
        _ length: Int,
        _ judge: ([UInt8]) -> CheckOutcome
    ) {
        log.check(id, subject) {
            guard device.isNet else { return .notApplicable("no network device") }
            guard try device.registers.offeredFeatures().contains(feature) else {
                return .notApplicable("the feature is not offered")
            }
            return judge(try device.transport.readConfiguration(offset, length))
        }
    }

    private static func address(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
    }

    private static func word(_ bytes: [UInt8]) -> UInt16 {
        UInt16(bytes[0]) | UInt16(bytes[1]) << 8
    }
}

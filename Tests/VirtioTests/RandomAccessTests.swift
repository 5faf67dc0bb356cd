import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

/// Nothing that a driver can do with reads and writes of any width anywhere traps, changes what is
/// read-only, or keeps the device from working after a reset.
@Suite struct RandomAccessTests {
    private static let fixedRegisters: [CommonConfiguration] = [
        .queueCount, .adminQueueIndex, .adminQueueCount,
    ]

    /// Bytes of configuration space that no write can change.
    private func identity(_ rig: DriverRig) -> [UInt32] {
        var bytes = [0, 1, 2, 3, 8, 9, 10, 11, 14, 0x2c, 0x2d, 0x2e, 0x2f, 0x34]
        if let list = try? CapabilityList(rig.bus) {
            bytes += list.entries.flatMap { [$0.offset, $0.offset + 1, $0.offset + 2] }
        }
        return bytes.map { rig.function.readConfiguration($0, .byte) }
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `HI-H1…4, HI-H18, HI-H21: 100000 accesses of any kind are survived`(
        _ seed: UInt64
    ) throws {
        var random = SplitMix64(seed)
        let device = try WindowedEchoDevice()
        let rig = try DriverRig(device)
        let before = identity(rig)
        var fixed: [UInt32] = []
        for register in Self.fixedRegisters { fixed.append(try rig.read(register)) }
        for step in 0..<25_000 {
            let width = AccessWidth.allCases[Int(random.next() % 3)]
            let value = Bool.random(using: &random) ? UInt32(random.next() % 20) : random.word()
            if random.next() % 4 == 0 {
                let offset = Int(random.next() % 300) - 20
                if Bool.random(using: &random) {
                    rig.function.writeConfiguration(offset, width, value)
                } else {
                    _ = rig.function.readConfiguration(offset, width)
                }
            } else {
                let bar = Int(random.next() % 8) / 2 * 2
                let near = [0, 16, 20, 22, 0x1000, 0x2000, 0x3000, 0x4000, 0x6000, 0x7000]
                let base = near[Int(random.next() % 10)]
                let offset =
                    random.next() % 50 == 0
                    ? random.next() : UInt64(base) + random.next() % 48
                if Bool.random(using: &random) {
                    rig.function.writeRegister(bar, offset, width, value)
                } else {
                    _ = rig.function.readRegister(bar, offset, width)
                }
            }
            if step % 100 == 0 {
                rig.function.writeConfiguration(ConfigurationHeader.command, .word, 6)
            }
            if step % 1000 == 0 { #expect(identity(rig) == before) }
        }
        rig.function.writeConfiguration(ConfigurationHeader.command, .word, 6)
        #expect(identity(rig) == before)
        for (register, value) in zip(Self.fixedRegisters, fixed) {
            #expect(try rig.read(register) == value)
        }
        device.configuration = [1, 2, 3, 4, 5, 6, 7, 8]
        let transport = try PCITransport(function: rig.bus)
        let ring = try EchoRing(transport, queue: 0)
        _ = try DriverHandshake.run(transport, wanted: []) { (_) throws(VirtioError) in
            try ring.enable()
        }
        #expect(try ring.echo([1, 2, 3]) == [1, 2, 3])
    }
}

/// A generator with a seed, so that a failure can be repeated.
struct SplitMix64: RandomNumberGenerator {
    private var state: UInt64

    init(_ seed: UInt64) {
        state = seed
    }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var value = state
        value = (value ^ (value >> 30)) &* 0xbf58_476d_1ce4_e5b9
        value = (value ^ (value >> 27)) &* 0x94d0_49bb_1331_11eb
        return value ^ (value >> 31)
    }

    mutating func word() -> UInt32 { UInt32(truncatingIfNeeded: next()) }
}

import FunctionSupport
import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct DriverHandshakeTests {
    private static let running: DeviceStatus = [.acknowledge, .driver, .featuresOK, .driverOK]

    private func failure(
        _ transport: PCITransport,
        wanted: FeatureBits = [],
        required: FeatureBits = [],
        _ queues: (FeatureBits) throws(VirtioError) -> Void = { _ in }
    ) -> String {
        do {
            _ = try DriverHandshake.run(
                transport,
                wanted: wanted,
                required: required,
                queues: queues
            )
            return "none"
        } catch {
            return "\(error)"
        }
    }

    @Test func `a device comes up and carries bytes there and back`() throws {
        let rig = try DriverRig()
        let ring = try rig.start()
        #expect(try rig.transport.status() == Self.running)
        #expect(try ring.echo([1, 2, 3]) == [1, 2, 3])
        #expect(ring.interrupt.drain() == 1)
        #expect(rig.device.context?.features == [.version1, .accessPlatform])
    }

    @Test func `a device comes up again and again`() throws {
        let rig = try DriverRig()
        for round in 1...50 {
            let ring = try rig.start()
            #expect(try ring.echo([UInt8(round)]) == [UInt8(round)])
            try rig.transport.reset()
            try rig.transport.releaseArena(ring.arena)
        }
        #expect(rig.device.activations == 50)
        #expect(rig.device.deactivations == 50)
    }

    @Test func `HI-A49: FEATURES_OK that does not stay ends in FAILED`() throws {
        let rig = try DriverRig()
        rig.device.acceptable = false
        #expect(failure(rig.transport).hasPrefix("init/features"))
        #expect(try rig.transport.status() == [.acknowledge, .driver, .failed])
        #expect(rig.device.activations == 0)
    }

    @Test func `HI-A49: a device without VERSION_1 is refused`() throws {
        let function = try TamperedFunction(EchoDevice())
        function.answer = { offset, _, value in offset == 4 ? value & ~1 : value }
        let transport = try PCITransport(function: function)
        #expect(failure(transport).hasPrefix("init/features"))
        #expect(try transport.status() == [.acknowledge, .driver, .failed])
    }

    @Test func `HI-A49: a required feature that is not offered is refused`() throws {
        let rig = try DriverRig()
        #expect(failure(rig.transport, required: .ringPacked).hasPrefix("init/features"))
        #expect(try rig.transport.status().contains(.failed))
    }

    @Test func `HI-A49: features that nobody asked for are not taken`() throws {
        let rig = try DriverRig()
        rig.device.offeredFeatures = FeatureBits(rawValue: .max)
        let chosen = try DriverHandshake.run(
            rig.transport,
            wanted: [.eventIndex, .accessPlatform]
        ) { (_) throws(VirtioError) in }
        #expect(chosen == [.version1, .eventIndex, .accessPlatform])
        #expect(rig.device.context?.features == chosen)
    }

    @Test func `an error between FEATURES_OK and DRIVER_OK ends in FAILED`() throws {
        let rig = try DriverRig()
        let text = failure(rig.transport) { (_) throws(VirtioError) in
            throw .noRoom("anything")
        }
        #expect(text.hasPrefix("limit/memory"))
        #expect(try rig.transport.status() == [.acknowledge, .driver, .featuresOK, .failed])
        #expect(rig.device.activations == 0)
    }

    @Test func `HI-A53: a device that goes in the middle ends it without another access`() throws {
        let function = try TamperedFunction(EchoDevice())
        let transport = try PCITransport(function: function)
        var accesses = 0
        let text = failure(transport) { (_) throws(VirtioError) in
            function.isGone = true
            accesses = function.accesses
            _ = try transport.queueCount()
        }
        #expect(text.hasPrefix("pci/device-gone"))
        // The register, then the status that tells ones from a value.
        #expect(function.accesses == accesses + 2)
    }

    @Test func `HI-A48: a device that fails at once is reported`() throws {
        let rig = try DriverRig()
        rig.device.failsToStart = true
        #expect(failure(rig.transport).hasPrefix("device/needs-reset"))
        try rig.transport.reset()
        #expect(try rig.transport.status() == [])
    }

    @Test func `HI-A50: a device that does not reset is not driven`() throws {
        let function = try TamperedFunction(EchoDevice())
        function.answer = { offset, _, value in offset == 20 ? value | 1 : value }
        let transport = try PCITransport(function: function)
        transport.resetLimit = 5
        #expect(failure(transport).hasPrefix("init/reset-timeout"))
        #expect(function.device.activations == 0)
    }
}

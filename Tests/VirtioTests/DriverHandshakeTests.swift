import HostSystem
import PCI
import Testing
import VirtioSpec

@testable import Virtio

@Suite struct DriverHandshakeTests {
    @Test func `a device comes up and carries bytes there and back`() throws {
        let rig = try DriverRig()
        let ring = try rig.start()
        #expect(try rig.transport.status() == [.acknowledge, .driver, .featuresOK, .driverOK])
        #expect(try ring.echo([1, 2, 3]) == [1, 2, 3])
        #expect(ring.interrupt.drain() == 1)
        #expect(rig.device.context?.features == [.version1, .accessPlatform])
    }
}

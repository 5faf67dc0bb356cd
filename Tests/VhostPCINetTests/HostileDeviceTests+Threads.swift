import GuestMemory
import HostSystem
import Testing
import VirtioSpec
import Virtqueue

@testable import VhostPCINet

// A thread of the host's that does not let go of the window.
extension HostileDeviceTests {
    @Test func `VPN-M-04: OFF is not acknowledged while a thread is in the window`() throws {
        try connect()
        let window = try #require(host.connection).memory
        let before = device.received.count
        host.refusesToLetGo = 3
        try say(.connection(isOn: false))
        #expect(device.received.count == before)
        #expect(device.context == nil, "the device was not reset")
        #expect(host.refusals == ["vpci/in-use"])
        #expect(window.read(0x1000, 1) == [0])
        // Driven again, and only then, once the thread has let go.
        try turn(until: { device.activations == 2 })
        #expect(host.refusesToLetGo == 0 && host.connection == nil)
        #expect(host.waits == [VhostPCINetDriver.quiesceMilliseconds, 0, 0, 0])
        #expect(host.refusals == ["vpci/in-use"])
        #expect(device.received.count == before)
        try connect(isStarted: true)
        #expect(host.connection != nil)
    }

    @Test func `VPN-M-04: stop with a thread in the window resets, waits for nothing and ends`()
        throws
    {
        try connect()
        let before = device.received.count
        host.refusesToLetGo = .max
        driver.stop()
        #expect(device.received.count == before)
        #expect(device.context == nil)
        #expect(host.refusals == ["vpci/in-use"])
        #expect(host.events.last == .stopped)
        for _ in 0..<30 { try loop.turn(limitMilliseconds: 10) }
        #expect(host.waits.count == 1 && device.activations == 1)
    }
}

import VirtioSpec

@testable import AdminQueue

/// Notes the commands that a management device executes for one virtual device.
final class CommandRecorder {
    private(set) var opcodes: [VirtualDeviceOpcode] = []

    init(_ rig: ManagementRig, _ id: UInt64) {
        rig.device.onCommand = { [weak self] readable in
            guard let header = VirtualDeviceHeader(readable), header.virtualDeviceID == id,
                let opcode = VirtualDeviceOpcode(header)
            else { return }
            self?.opcodes.append(opcode)
        }
    }
}

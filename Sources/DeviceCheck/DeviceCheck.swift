public import PCI
internal import Virtio
internal import VirtioSpec

/// Holds the numbered rules of docs/requirements/DEV.md against a live virtio PCI function.
///
/// The function is reset several times and driven as its only driver would; nothing else may use it
/// meanwhile. Every wait has a limit. The function is left in reset.
public enum DeviceCheck {
    /// What the ids of all rules begin with.
    public static let families = [
        "DEV-P", "DEV-C", "DEV-R", "DEV-S", "DEV-N", "DEV-Q", "DEV-I", "DEV-L", "DEV-X",
    ]

    /// Runs the checks whose id begins with one of `prefixes`, all when there are none;
    /// `report` hears of each result at once. Throws `refused` where not the device but the host
    /// stands in the way of driving it, such as a limit on locked memory.
    public static func run(
        _ function: any PCIFunction,
        only prefixes: [String] = [],
        report: @escaping (CheckResult) -> Void = { _ in }
    ) throws(PCIError) -> [CheckResult] {
        let log = CheckLog(only: prefixes, report)
        let structures = FoundStructures(function)
        FunctionChecks(function).run(log)
        enable(function)
        StructureChecks(function, structures).run(log)
        guard let registers = DeviceRegisters(function, structures) else {
            log.insist("DEV-R-01", "reset", "there is no common configuration to drive")
            return log.results
        }
        RegisterChecks(function, registers, structures).run(log)
        NegotiationChecks(registers).run(log)
        let device: CheckedDevice
        do {
            device = try CheckedDevice(function, registers)
        } catch VirtioError.pci(.refused(let refusal)) {
            throw .refused(refusal)
        } catch {
            log.insist("DEV-Q-01", "driver", "\(error)")
            return log.results
        }
        NetConfigurationChecks(device).run(log)
        QueueChecks(device).run(log)
        InterruptChecks(device).run(log)
        LoopChecks(device).run(log)
        RecoveryChecks(device).run(log)
        if let error = device.leaveInReset() {
            log.insist("DEV-X-06", "left in reset", "\(error)")
        }
        return log.results
    }

    /// Lets BARs answer, whatever DEV-P found. The function may reach memory only once it was reset.
    private static func enable(_ function: any PCIFunction) {
        do throws(PCIError) {
            try function.changeCommand { $0.union(.memorySpace) }
        } catch {
            // DEV-P-11 does the same and keeps the error.
        }
    }
}

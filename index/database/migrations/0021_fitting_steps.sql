-- Columns of steps hold what a worklist answers (index/orders/vr.py); several values are none to choose by.
UPDATE scheduled_step SET modality = '' WHERE SUBSTR(modality, 1, 1) = '[';
UPDATE scheduled_step SET modality = UPPER(TRIM(modality)) WHERE modality <> UPPER(TRIM(modality));
UPDATE scheduled_step SET start_date = REPLACE(start_date, '.', '')
    WHERE start_date <> REPLACE(start_date, '.', '');
